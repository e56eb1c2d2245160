import Anthropic from "@anthropic-ai/sdk";
export default new Anthropic(); // expect: client unguarded
