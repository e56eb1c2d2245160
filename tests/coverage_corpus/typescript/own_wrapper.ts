// What the wrapper itself does with the client is its own affair.
import Anthropic from '@anthropic-ai/sdk';

export function guarded(client: Anthropic): Anthropic {
  const inner = client.messages.create.bind(client.messages);
  client.messages.create = ((params: any) => inner(params)) as never; // expect: call guarded
  return client;
}

export const safe = guarded(new Anthropic()); // expect: client guarded
safe.messages.create({ model: 'm', max_tokens: 1, messages: [] }); // expect: call guarded
