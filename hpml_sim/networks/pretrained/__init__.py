"""Real networks with their weights, as plain modules of ours: every product is a layer that can be converted.

entries.py            which there are, from which packages; load, download
language_model.py     Llama's layout with a key-value cache and generation
smollm2.py            SmolLM2-135M from its GGUF file
byte_pairs.py         tokenizers
sentence_encoder.py   MiniLM-L6
pronunciation.py      g2p: letters to phonemes
speech_detector.py    Silero VAD
hugging_face.py       models of `transformers`, by folder or name
"""
