import express from 'express';
import Anthropic from '@anthropic-ai/sdk';

const app = express();
app.locals.anthropic = new Anthropic(); // expect: client unguarded

app.post('/chat', async (req, res) => {
  const { anthropic } = req.app.locals;
  const answer = await anthropic.messages.create(req.body); // expect: call unguarded
  res.json(await summarize(req.app.locals.anthropic, answer));
});

async function summarize(client: Anthropic, answer: unknown) {
  return client.messages.create({ model: 'm', max_tokens: 1, messages: [{ role: 'user', content: String(answer) }] }); // expect: call unguarded
}
