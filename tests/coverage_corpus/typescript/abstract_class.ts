import Anthropic from '@anthropic-ai/sdk';

abstract class Base {
  protected abstract readonly client: Anthropic;
  abstract build(): Anthropic;

  ask(params: any) {
    return this.client.messages.create(params); // expect: call unguarded
  }

  askAnew(params: any) {
    return this.build().messages.create(params); // expect: call unguarded
  }
}

export class Concrete extends Base {
  protected readonly client = new Anthropic(); // expect: client unguarded
  build() {
    return new Anthropic(); // expect: client unguarded
  }
}
