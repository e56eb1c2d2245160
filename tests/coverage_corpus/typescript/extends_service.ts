import Anthropic from '@anthropic-ai/sdk';

export class BaseService<C = Anthropic> {
  constructor(protected readonly client: C, protected name: string) {}
}

export class Titles extends BaseService {
  constructor() {
    super(new Anthropic(), 'titles'); // expect: client unguarded
  }
  async make(texts: string[]) {
    return Promise.all(texts.map(async (text) => {
      const { client } = this;
      return client.messages.create({ model: 'm', max_tokens: 1, messages: [{ role: 'user', content: text }] }); // expect: call unguarded
    }));
  }
}
