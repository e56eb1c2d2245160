import Anthropic from '@anthropic-ai/sdk';
import { guarded } from '@acme/guard';

async function withClient<T>(use: (client: Anthropic) => Promise<T>): Promise<T> {
  const client = new Anthropic(); // expect: client unguarded
  return use(client);
}
function asker(client: Anthropic) {
  return (params: any) => client.messages.create(params); // expect: call guarded
}
const curry = (client: Anthropic) => (model: string) => (messages: any[]) =>
  client.messages.create({ model, max_tokens: 1, messages }); // expect: call unguarded

export const one = withClient((c) => c.messages.create({ model: 'm', max_tokens: 1, messages: [] })); // expect: call unguarded
export const two = asker(guarded(new Anthropic())); // expect: client guarded
export const three = curry(new Anthropic())('claude')([]); // expect: client unguarded
