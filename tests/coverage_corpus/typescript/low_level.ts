import Anthropic from '@anthropic-ai/sdk';
import { Messages } from '@anthropic-ai/sdk/resources/messages';

const client = new Anthropic(); // expect: client unguarded
const own = new Messages(client);
const method = 'create' as 'create' | 'stream';

export async function run(body: any) {
  await client.post('/v1/messages', { body }); // expect: call unguarded
  await client.messages.create(body).withResponse(); // expect: call unguarded
  await own.create(body); // expect: call unguarded
  await client.messages[method](body); // expect: call unguarded
  await client.beta.files.upload({ file: body }); // expect: call unguarded
  await client.messages.parse(body); // expect: call unguarded
}
