import Anthropic from '@anthropic-ai/sdk';
import memoize from 'lodash/memoize';
import { cache } from 'react';
import { guarded } from '@acme/guard';

const byKey = memoize((apiKey: string) => new Anthropic({ apiKey })); // expect: client unguarded
const cached = cache(() => guarded(new Anthropic())); // expect: client guarded
const lazy = { get client() { return byKey('k'); } };

export async function run(params: any) {
  await byKey('a').messages.create(params); // expect: call unguarded
  await cached().messages.create(params); // expect: call guarded
  await lazy.client.messages.create(params); // expect: call unguarded
}
