import Anthropic from '@anthropic-ai/sdk';
import { guarded } from '@acme/guard';

const client = new Anthropic(); // expect: client unguarded

export async function run(params: any) {
  await guarded(() => client.messages.create(params)); // expect: call guarded
  return client.messages.create(params); // expect: call unguarded
}

const lazy = guarded(() => new Anthropic()); // expect: client guarded
export const again = (params: any) => lazy().messages.create(params); // expect: call guarded
