import Anthropic from '@anthropic-ai/sdk';

const keys = ['a', 'b'];
const pool = keys.map((apiKey) => new Anthropic({ apiKey })); // expect: client unguarded
const byTenant = new Map<string, Anthropic>();
const listed: Anthropic[] = [];

export function forTenant(tenant: string) {
  let client = byTenant.get(tenant);
  if (!client) {
    client = new Anthropic(); // expect: client unguarded
    byTenant.set(tenant, client);
    listed.push(client);
  }
  return client;
}

export async function all(params: any) {
  await Promise.all(pool.map((c) => c.messages.create(params))); // expect: call unguarded
  await pool[Math.floor(Math.random() * pool.length)].messages.create(params); // expect: call unguarded
  await forTenant('t').messages.create(params); // expect: call unguarded
  for (const [, client] of byTenant) await client.messages.create(params); // expect: call unguarded
  for (const each of listed) each.messages.countTokens(params); // expect: call unguarded
}
