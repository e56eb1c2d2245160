import { client } from '../../lib/client';

export default async function handler(req, res) {
  res.json(await client.messages.countTokens(req.body)); // expect: call unguarded
}
