'use strict';
const Anthropic = require('@anthropic-ai/sdk');

let cached;
function getClient() {
  if (!cached) cached = new Anthropic({ apiKey: process.env.ANTHROPIC_API_KEY }); // expect: client unguarded
  return cached;
}

module.exports = { getClient, model: 'claude-3-5-haiku-latest' };
