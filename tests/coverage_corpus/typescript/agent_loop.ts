import Anthropic from '@anthropic-ai/sdk';
import { guarded } from '@acme/guard';

export class RefundAgent {
  private readonly client = guarded(new Anthropic()); // expect: client guarded

  async run(messages: Anthropic.MessageParam[], tools: Anthropic.Tool[]) {
    while (true) {
      const reply = await this.client.messages.create({ model: 'm', max_tokens: 1, messages, tools }); // expect: call guarded
      if (reply.stop_reason !== 'tool_use') return reply;
    }
  }
}
