import { bare, safe } from '@acme/llm';
import obtain, { SafeClient } from './llm';
import { client as legacy } from './legacy';

export async function main(params: any) {
  await obtain('a').messages.create(params); // expect: call guarded
  await new SafeClient().messages.create(params); // expect: client guarded, call guarded
  await safe.messages.create(params); // expect: call guarded
  await bare().messages.create(params); // expect: call unguarded
  await legacy.messages.create(params); // expect: call unguarded
}
