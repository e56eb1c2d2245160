const { default: Anthropic } = await import('@anthropic-ai/sdk');
const client = new Anthropic(); // expect: client unguarded
for await (const event of client.messages.stream({ model: 'claude-opus-4-1', max_tokens: 5, messages: [] })) { // expect: call unguarded
  console.log(event);
}

export async function later() {
  const sdk = await import('@anthropic-ai/sdk');
  const lazy = new sdk.default(); // expect: client unguarded
  return lazy.completions.create({ model: 'claude-2.1', max_tokens_to_sample: 3, prompt: '' }); // expect: call unguarded
}

export function soonest() {
  return import('@anthropic-ai/sdk').then(({ Anthropic: Late }) =>
    new Late().messages.create({ model: 'claude-opus-4-1', max_tokens: 5, messages: [] }), // expect: client unguarded, call unguarded
  );
}
