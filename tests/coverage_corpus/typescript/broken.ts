import Anthropic from '@anthropic-ai/sdk';

export function half( {
  const client = new Anthropic(;
