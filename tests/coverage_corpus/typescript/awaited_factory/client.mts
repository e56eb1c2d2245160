let promise;

export const getAnthropic = async () => {
  promise ??= import('@anthropic-ai/sdk').then(({ default: Anthropic }) => new Anthropic()); // expect: client unguarded
  return promise;
};
export { getAnthropic as default };
