import Fastify from 'fastify';
import { Hono } from 'hono';
import Anthropic from '@anthropic-ai/sdk';

const server = Fastify();
server.decorate('claude', new Anthropic()); // expect: client unguarded
server.get('/a', async (request) => server.claude.messages.create(request.query)); // expect: call unguarded

const app = new Hono();
app.use('*', async (c, next) => {
  c.set('llm', new Anthropic({ apiKey: c.env.KEY })); // expect: client unguarded
  await next();
});
app.get('/b', async (c) => c.json(await c.get('llm').messages.create({ model: 'm', max_tokens: 1, messages: [] }))); // expect: call unguarded
