import Anthropic from '@anthropic-ai/sdk';

type Constructor<T = object> = new (...args: any[]) => T;

function Logged<B extends Constructor>(Base: B) {
  return class extends Base {
    log = console.log;
  };
}

class LoggedClient extends Logged(Anthropic) {}
const SomeClass = process.env.X ? Anthropic : LoggedClient;
const client = new LoggedClient(); // expect: client unguarded
const either = new SomeClass(); // expect: client unguarded
client.messages.create({ model: 'm', max_tokens: 1, messages: [] }); // expect: call unguarded
either.messages.create({ model: 'm', max_tokens: 1, messages: [] }); // expect: call unguarded
