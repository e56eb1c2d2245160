// One helper is used for both: each call keeps what was handed in.
import Anthropic from '@anthropic-ai/sdk';
import { guarded } from '@acme/guard';

function prepared(client: Anthropic, name: string) {
  const safe = guarded(client, { name });
  return safe;
}

const client = prepared(new Anthropic(), 'main'); // expect: client guarded
export const { messages } = client;
export const create = client.messages.create.bind(client.messages);

export async function run(params: Anthropic.MessageCreateParamsNonStreaming) {
  await messages.create(params); // expect: call guarded
  await create(params); // expect: call guarded
  const quick = client.withOptions({ timeout: 1_000 });
  return quick.messages.create(params); // expect: call guarded
}
