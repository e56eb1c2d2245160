import type AnthropicType from '@anthropic-ai/sdk';

const sdk = import('@anthropic-ai/sdk');
const ready: Promise<AnthropicType> = sdk.then((m) => new m.default()); // expect: client unguarded
const deferred = new Promise<AnthropicType>((resolve) => {
  sdk.then(({ Anthropic }) => resolve(new Anthropic())); // expect: client unguarded
});

ready.then((client) => client.messages.create({ model: 'm', max_tokens: 1, messages: [] })); // expect: call unguarded
const [first, second] = await Promise.all([ready, deferred]);
await first.messages.create({ model: 'm', max_tokens: 1, messages: [] }); // expect: call unguarded
await second.beta.messages.create({ model: 'm', max_tokens: 1, messages: [] }); // expect: call unguarded
