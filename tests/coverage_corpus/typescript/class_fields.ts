import Anthropic from '@anthropic-ai/sdk';

export class Summarizer {
  readonly #client: Anthropic;
  private static shared = new Anthropic(); // expect: client unguarded
  private beta = Summarizer.shared.beta;

  constructor(apiKey: string) {
    this.#client = new Anthropic({ apiKey }); // expect: client unguarded
  }

  async summarize(texts: string[]) {
    const found = [];
    for (const text of texts) {
      found.push(await this.#client.messages.create({ model: 'm', max_tokens: 1, messages: [{ role: 'user', content: text }] })); // expect: call unguarded
    }
    return found;
  }

  count = async (messages: Anthropic.MessageParam[]) => this.beta.messages.countTokens({ model: 'm', messages }); // expect: call unguarded

  static ping() {
    return this.shared.models.list(); // expect: call unguarded
  }
}
