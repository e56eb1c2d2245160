import Anthropic from '@anthropic-ai/sdk';

function Bot(key) {
  this.client = new Anthropic({ apiKey: key }); // expect: client unguarded
}

Bot.prototype.say = function (params) {
  return this.client.messages.create(params); // expect: call unguarded
};

const bot = new Bot('k');
bot.client.messages.stream({ model: 'm', max_tokens: 1, messages: [] }); // expect: call unguarded
