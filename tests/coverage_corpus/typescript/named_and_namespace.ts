import { Anthropic as Sdk } from '@anthropic-ai/sdk';
import * as sdk from '@anthropic-ai/sdk';

const one = new Sdk(); // expect: client unguarded
const two = new sdk.Anthropic(); // expect: client unguarded
const three = new sdk.default({ apiKey: process.env.KEY }); // expect: client unguarded

export const answers = await Promise.all([
  one.messages.create({ model: 'claude-haiku-4-5', max_tokens: 8, messages: [] }), // expect: call unguarded
  two.messages.countTokens({ model: 'claude-haiku-4-5', messages: [] }), // expect: call unguarded
  three.beta.messages.create({ model: 'claude-haiku-4-5', max_tokens: 8, messages: [] }), // expect: call unguarded
]);
