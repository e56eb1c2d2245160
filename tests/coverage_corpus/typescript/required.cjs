const Anthropic = require('@anthropic-ai/sdk');
const { Anthropic: Named, APIError } = require('@anthropic-ai/sdk');
const Third = require('@anthropic-ai/sdk').default;

const first = new Anthropic(); // expect: client unguarded
const second = new Named(); // expect: client unguarded
const third = new Third(); // expect: client unguarded

module.exports.run = async function run(params) {
  try {
    await first.messages.create(params); // expect: call unguarded
    await second['messages']['create'](params); // expect: call unguarded
    return third.messages?.stream(params); // expect: call unguarded
  } catch (error) {
    if (error instanceof APIError) throw new APIError(error.status, error.message);
    throw error;
  }
};
