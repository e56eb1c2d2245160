import { Worker } from 'bullmq';
import { llm } from './does-not-exist';

new Worker('summaries', async (job) => {
  await llm.messages.create({ model: 'claude-haiku-4-5', max_tokens: 1, messages: job.data }); // expect: call unknown
});
