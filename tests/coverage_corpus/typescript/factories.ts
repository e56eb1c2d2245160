import Anthropic, { type ClientOptions } from '@anthropic-ai/sdk';
import { guarded } from './guard';

const makeRaw = (options?: ClientOptions) => new Anthropic(options); // expect: client unguarded
function identity<T>(value: T): T {
  return value;
}
async function makeGuarded(options: ClientOptions): Promise<Anthropic> {
  const raw = new Anthropic({ ...options, maxRetries: 0 }); // expect: client guarded
  return guarded(raw);
}

export async function run(params: Anthropic.MessageCreateParams) {
  await makeRaw().messages.create(params); // expect: call unguarded
  const same = identity(await makeGuarded({}));
  await same.messages.create(params); // expect: call guarded
  const other = identity(makeRaw());
  await other.messages.create(params); // expect: call unguarded
}
