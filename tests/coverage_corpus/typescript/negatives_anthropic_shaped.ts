// A fake of a test's own, with the shape of the SDK.
export const fakeAnthropic = {
  messages: {
    create: async (params: { model: string; max_tokens: number }) => ({ content: [{ type: 'text', text: params.model }] }),
    stream: () => ({ async *[Symbol.asyncIterator]() {} }),
  },
};

export async function exercise() {
  await fakeAnthropic.messages.create({ model: 'claude-haiku-4-5', max_tokens: 1 });
  for await (const _ of fakeAnthropic.messages.stream()) break;
}
