// Obtained from a wrapper of a package, which is given none.
import { guardedClient, rawClient } from '@acme/llm';
import * as llm from '@acme/llm';

const client = guardedClient({ name: 'billing' });

export async function run(params: any) {
  await client.messages.create(params); // expect: call guarded
  await llm.guardedClient().beta.messages.create(params); // expect: call guarded
  await rawClient().messages.create({ model: 'claude-haiku-4-5', max_tokens: 1, messages: [] }); // expect: call unknown
}
