import Anthropic from '@anthropic-ai/sdk';

interface Options {
  client?: Anthropic;
  model?: string;
}

export async function ask(prompt: string, { client = new Anthropic(), model = 'm' }: Options = {}) { // expect: client unguarded
  return client.messages.create({ model, max_tokens: 1, messages: [{ role: 'user', content: prompt }] }); // expect: call unguarded
}

export class Service {
  constructor(private readonly client = new Anthropic(), private readonly opts: Options = {}) {} // expect: client unguarded
  a = () => this.client.messages.create({ model: 'm', max_tokens: 1, messages: [] }); // expect: call unguarded
  b = () => this.opts.client?.messages.create({ model: 'm', max_tokens: 1, messages: [] }); // expect: call unknown
}
