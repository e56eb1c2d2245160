// A method that is handed to a foreign function is called by it, there.
import Anthropic from '@anthropic-ai/sdk';
import pLimit from 'p-limit';
import pRetry from 'p-retry';
import { partial } from 'lodash';

const client = new Anthropic(); // expect: client unguarded
const limit = pLimit(3);

export async function run(params: any, many: any[]) {
  await limit(client.messages.create, params); // expect: call unguarded
  await Promise.all(many.map(client.messages.create)); // expect: call unguarded
  const ask = partial(client.messages.create, params);
  await ask(); // expect: call unguarded
  await pRetry(() => client.messages.create(params), { retries: 5 }); // expect: call unguarded
}
