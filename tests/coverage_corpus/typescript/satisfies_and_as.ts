import Anthropic from '@anthropic-ai/sdk';

const client = new Anthropic() satisfies Anthropic as Anthropic; // expect: client unguarded
const maybe: Anthropic | undefined = client;

export const run = async <P,>(params: P) => {
  await (client as any).messages.create(params); // expect: call unguarded
  await maybe!.messages!.create(params as never); // expect: call unguarded
  await (<any>client).beta.messages.stream(params); // expect: call unguarded
};
