"""Libraries that call Anthropic by their own clients."""

import litellm
from claude_agent_sdk import query
from langchain_anthropic import ChatAnthropic
from langchain_core.prompts import ChatPromptTemplate
from litellm import acompletion
from litellm import completion as complete
from pydantic_ai import Agent

litellm.completion(model="claude-opus-4-8", messages=[])  # expect: call unguarded
complete(model="anthropic/claude-opus-4-8", messages=[])  # expect: call unguarded
litellm.completion(model="gpt-5", messages=[])

llm = ChatAnthropic(model="claude-opus-4-8")  # expect: client unguarded
llm.invoke("hi")  # expect: call unguarded
chain = ChatPromptTemplate.from_messages([]) | llm
chain.invoke({})  # expect: call unguarded
tools = llm.bind_tools([])

agent = Agent("anthropic:claude-opus-4-8")  # expect: client unguarded
agent.run_sync("hi")  # expect: call unguarded
gemini = Agent("google-gla:gemini-2.5-pro")
gemini.run_sync("hi")


async def more(model):
    await acompletion(model=model, messages=[])  # expect: call unknown
    await tools.ainvoke("hi")  # expect: call unguarded
    async for message in query(prompt="hi"):  # expect: call unguarded
        print(message)
