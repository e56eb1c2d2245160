// Nobody among the files hands these in: only the type tells what they are.
import type Anthropic from '@anthropic-ai/sdk';
import { type Anthropic as Named } from '@anthropic-ai/sdk';

interface Deps {
  client: Anthropic;
  make: () => Promise<Named>;
}
type Narrow = Pick<Anthropic, 'messages'>;

export async function run(deps: Deps, params: Anthropic.MessageCreateParams) {
  await deps.client.messages.create(params); // expect: call unknown
  const made = await deps.make();
  await made.messages.create(params); // expect: call unknown
}

export const narrow = ({ messages }: Narrow, params: any) => messages.create(params); // expect: call unknown

export function generic<T extends Anthropic>(client: T, params: any) {
  return client.beta.messages.create(params); // expect: call unknown
}

export const cast = (thing: unknown, params: any) => (thing as Anthropic).messages.create(params); // expect: call unknown
export const resource = (m: Anthropic.Messages, params: any) => m.stream(params); // expect: call unknown
