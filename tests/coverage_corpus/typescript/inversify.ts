import Anthropic from '@anthropic-ai/sdk';
import { Container, inject, injectable } from 'inversify';

const TYPES = { Claude: Symbol.for('Claude') };
const container = new Container();
container.bind<Anthropic>(TYPES.Claude).toDynamicValue(() => new Anthropic()).inSingletonScope(); // expect: client unguarded

@injectable()
class Reviewer {
  @inject(TYPES.Claude) private claude!: Anthropic;

  review(diff: string) {
    return this.claude.messages.create({ model: 'm', max_tokens: 1, messages: [{ role: 'user', content: diff }] }); // expect: call unguarded
  }
}

container.get<Anthropic>(TYPES.Claude).models.list(); // expect: call unguarded
export { Reviewer };
