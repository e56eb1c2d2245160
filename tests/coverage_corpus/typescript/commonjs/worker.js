const { getClient, model } = require('./lib/client');
const lib = require('./lib/client.js');

exports.work = async (job) => {
  await getClient().messages.create({ model, max_tokens: 10, messages: job.messages }); // expect: call unguarded
  await lib.getClient().messages.create({ model: lib.model, max_tokens: 10, messages: [] }); // expect: call unguarded
};
