import { client, other } from './llm/client';
import * as everything from './llm/client.js';

export async function main(params: any) {
  await client.messages.create(params); // expect: call guarded
  await other.messages.create(params); // expect: call unguarded
  await everything.client.messages.stream(params); // expect: call guarded
}
