import Anthropic from '@anthropic-ai/sdk';

export class Llm {
  private static instance: Llm | null = null;
  private client?: Anthropic;

  static get(): Llm {
    return (Llm.instance ??= new Llm());
  }

  private get api() {
    return (this.client ||= new Anthropic()); // expect: client unguarded
  }

  complete(params: Anthropic.MessageCreateParams) {
    return this.api.messages.create(params); // expect: call unguarded
  }

  raw = () => this.client!;
}

const global_ = globalThis as unknown as { anthropic?: Anthropic };
export const shared = global_.anthropic ?? new Anthropic(); // expect: client unguarded
if (process.env.NODE_ENV !== 'production') global_.anthropic = shared;

export const go = async (params: Anthropic.MessageCreateParams) => {
  await Llm.get().raw().messages.create(params); // expect: call unguarded
  await shared.messages.create(params); // expect: call unguarded
};
