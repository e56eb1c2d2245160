const { createContainer, asFunction, asValue } = require('awilix');
const Anthropic = require('@anthropic-ai/sdk').default;

const makeSummarizer = ({ anthropic }) => ({
  summarize: (text) => anthropic.messages.create({ model: 'm', max_tokens: 1, messages: [{ role: 'user', content: text }] }), // expect: call unguarded
});

const container = createContainer();
container.register({
  anthropic: asValue(new Anthropic()), // expect: client unguarded
  summarizer: asFunction(makeSummarizer).singleton(),
});
container.resolve('anthropic').messages.create({ model: 'm', max_tokens: 1, messages: [] }); // expect: call unguarded
container.cradle.summarizer.summarize('x');
