import Anthropic from '@anthropic-ai/sdk';
import { EventEmitter } from 'node:events';

const bus = new EventEmitter();
const client = new Anthropic(); // expect: client unguarded

class Listener {
  constructor(private api: Pick<Anthropic, 'messages'>) {
    bus.on('ask', this.onAsk.bind(this));
    bus.on('count', (params) => void this.api.messages.countTokens(params)); // expect: call unguarded
  }
  private async onAsk(params: any) {
    await this.api.messages.create(params); // expect: call unguarded
  }
}

new Listener(client);
new Listener({ messages: client.messages });
setTimeout(async () => {
  const runner = client.beta.messages.toolRunner({ model: 'm', max_tokens: 1, messages: [], tools: [] }); // expect: call unguarded
  for await (const message of runner) console.log(message);
}, 1_000);
