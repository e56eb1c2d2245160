import Anthropic from '@anthropic-ai/sdk';
import { Worker } from 'bullmq';
import express from 'express';

const client = new Anthropic(); // expect: client unguarded
const app = express();
const params = { model: 'm', max_tokens: 1, messages: [] };

const helped = () => client.messages.create(params); // expect: call unguarded
app.get('/help', async (_, response) => response.json(await helped()));

app.post('/each', async (request) => {
  for (const _ of request.body) await client.messages.create(params); // expect: call unguarded
});

new Worker('mail', (job) => Promise.all(job.data.map(() => client.messages.create(params)))); // expect: call unguarded

export const handler = async (event: SQSEvent) => client.messages.create(params); // expect: call unguarded

export class ResearchAgent {
  async run() {
    let reply;
    do {
      reply = await client.messages.create(params); // expect: call unguarded
    } while (reply.stop_reason === 'tool_use');
  }
}

export default { fetch: () => client.messages.create(params) }; // expect: call unguarded

export const plain = () => client.messages.create(params); // expect: call unguarded
