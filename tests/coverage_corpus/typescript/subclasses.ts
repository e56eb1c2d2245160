import Anthropic from '@anthropic-ai/sdk';
import { guarded } from '../guard';

class TracedClient extends Anthropic {
  constructor(readonly label: string) {
    super({ maxRetries: 0 });
  }

  ask(prompt: string) {
    return this.messages.create({ model: 'm', max_tokens: 1, messages: [{ role: 'user', content: prompt }] }); // expect: call unguarded
  }
}

class AuditedClient extends TracedClient {}

const traced = new TracedClient('a'); // expect: client unguarded
const audited = guarded(new AuditedClient('b')); // expect: client guarded

export const run = async (params: Anthropic.MessageCreateParamsNonStreaming) => {
  await traced.messages.create(params); // expect: call unguarded
  await traced.ask('hello');
  await audited.messages.create(params); // expect: call guarded
};
