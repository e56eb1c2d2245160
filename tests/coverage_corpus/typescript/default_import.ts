// The default export under a name of one's own.
import Claude from '@anthropic-ai/sdk';

const claude = new Claude({ maxRetries: 0 }); // expect: client unguarded

export async function ask(prompt: string) {
  const message = await claude.messages.create({ // expect: call unguarded
    model: 'claude-sonnet-4-5',
    max_tokens: 1024,
    messages: [{ role: 'user', content: prompt }],
  });
  return message.content;
}
