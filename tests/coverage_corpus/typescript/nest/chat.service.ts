import { Inject, Injectable } from '@nestjs/common';
import type Anthropic from '@anthropic-ai/sdk';
import { ANTHROPIC, RAW } from './tokens';

@Injectable()
export class ChatService {
  constructor(
    @Inject(ANTHROPIC) private readonly anthropic: Anthropic,
    @Inject(RAW) private readonly raw: Anthropic,
  ) {}

  async chat(prompt: string) {
    return this.anthropic.messages.create({ model: 'm', max_tokens: 1, messages: [{ role: 'user', content: prompt }] }); // expect: call guarded
  }

  async title(prompt: string) {
    return this.raw.messages.create({ model: 'm', max_tokens: 1, messages: [{ role: 'user', content: prompt }] }); // expect: call unguarded
  }
}
