"""From books to `story_dataset_{train,val,test}.jsonl`; see README.md in this folder."""
