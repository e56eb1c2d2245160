// A wrapper that the configuration does not name guards nothing.
import Anthropic from '@anthropic-ai/sdk';
import { wrapSDK } from 'langsmith/wrappers';

function withRetries<T extends object>(client: T): T {
  return new Proxy(client, { get: (target, key) => Reflect.get(target, key) });
}

const traced = wrapSDK(new Anthropic()); // expect: client unguarded
const retried = withRetries(new Anthropic()); // expect: client unguarded

export const run = async (params: any) => {
  await traced.messages.create(params); // expect: call unguarded
  await retried.messages.create(params); // expect: call unguarded
};
