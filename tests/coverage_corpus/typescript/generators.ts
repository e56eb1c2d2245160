import Anthropic from '@anthropic-ai/sdk';

function* clients() {
  yield new Anthropic({ apiKey: 'a' }); // expect: client unguarded
  yield new Anthropic({ apiKey: 'b' }); // expect: client unguarded
}

async function* deltas(client: Anthropic, params: any) {
  const stream = client.messages.stream(params); // expect: call unguarded
  for await (const event of stream) yield event;
}

for (const client of clients()) {
  for await (const delta of deltas(client, {})) console.log(delta);
}
const [first] = [...clients()];
await first.messages.create({ model: 'm', max_tokens: 1, messages: [] }); // expect: call unguarded
