import get, { getAnthropic } from './client.mjs';

const client = await get();
await client.messages.create({ model: 'm', max_tokens: 1, messages: [] }); // expect: call unguarded
await (await getAnthropic()).beta.messages.countTokens({ model: 'm', messages: [] }); // expect: call unguarded
getAnthropic()
  .then((c) => c.messages.batches.list()) // expect: call unguarded
  .catch(console.error);
