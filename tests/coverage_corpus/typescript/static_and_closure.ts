import { Anthropic } from '@anthropic-ai/sdk';
import { guarded } from '@acme/guard';

export const llm = (() => {
  const raw = new Anthropic(); // expect: client guarded
  const client = guarded(raw, { name: 'main' });
  return { client, ask: (params: any) => client.messages.create(params) }; // expect: call guarded
})();

class Registry {
  static clients: Record<string, Anthropic> = {};
  static {
    Registry.clients.main = new Anthropic(); // expect: client unguarded
  }
}

export const a = (params: any) => llm.client.beta.messages.create(params); // expect: call guarded
export const b = (params: any) => Registry.clients.main.messages.create(params); // expect: call unguarded
