import Anthropic from '@anthropic-ai/sdk';
import { guarded } from '@acme/guard';

class Planner {
  constructor(private readonly llm: Anthropic, protected log = console) {}

  plan(goal: string) {
    return this.llm.messages.create({ model: 'm', max_tokens: 1, messages: [{ role: 'user', content: goal }] }); // expect: call guarded
  }
}

class Critic {
  constructor(private readonly llm: Anthropic) {}

  criticize(text: string) {
    return this.llm.messages.create({ model: 'm', max_tokens: 1, messages: [{ role: 'user', content: text }] }); // expect: call unguarded
  }
}

export const planner = new Planner(guarded(new Anthropic())); // expect: client guarded
export const critic = new Critic(new Anthropic()); // expect: client unguarded
