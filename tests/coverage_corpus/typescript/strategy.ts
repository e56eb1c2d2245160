import Anthropic from '@anthropic-ai/sdk';
import OpenAI from 'openai';

interface Provider {
  complete(prompt: string): Promise<unknown>;
}

class AnthropicProvider implements Provider {
  constructor(private sdk = { llm: new Anthropic() }) {} // expect: client unguarded
  complete = async (prompt: string) => {
    const { llm: { messages } } = this.sdk;
    return messages.create({ model: 'm', max_tokens: 1, messages: [{ role: 'user', content: prompt }] }); // expect: call unguarded
  };
}

class OpenAiProvider implements Provider {
  private sdk = new OpenAI();
  async complete(prompt: string) {
    return this.sdk.chat.completions.create({ model: 'gpt-5', messages: [{ role: 'user', content: prompt }] });
  }
}

const registry: Record<string, () => Provider> = {
  anthropic: () => new AnthropicProvider(),
  openai: () => new OpenAiProvider(),
};
export const complete = (name: string, prompt: string) => registry[name]().complete(prompt);
