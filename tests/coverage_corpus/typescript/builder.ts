import Anthropic, { ClientOptions } from '@anthropic-ai/sdk';

class Builder {
  private options: ClientOptions = {};
  key(apiKey: string): this {
    this.options.apiKey = apiKey;
    return this;
  }
  retries(maxRetries: number) {
    this.options = { ...this.options, maxRetries };
    return this;
  }
  build() {
    return new Anthropic(this.options); // expect: client unguarded
  }
}

const client = new Builder().key('k').retries(0).build();
export const answer = client.messages.create({ model: 'm', max_tokens: 1, messages: [] }); // expect: call unguarded
