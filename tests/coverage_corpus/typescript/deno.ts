import Anthropic from 'npm:@anthropic-ai/sdk@0.65.0';
import Again from 'https://esm.sh/@anthropic-ai/sdk@0.65.0';

const client = new Anthropic(); // expect: client unguarded
const again = new Again(); // expect: client unguarded
Deno.serve(async (request) => Response.json(await client.messages.create(await request.json()))); // expect: call unguarded
await again.messages.create({ model: 'm', max_tokens: 1, messages: [] }); // expect: call unguarded
